package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagError says in our words what is wrong with a flag: which one, what was given, what is accepted.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var missing *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	var syntax *pflag.InvalidSyntaxError
	switch {
	case errors.As(err, &unknown):
		name := "--" + unknown.GetSpecifiedName()
		if letters := unknown.GetSpecifiedShortnames(); letters != "" {
			name = "-" + letters
		}
		text := ""
		if similar := similarFlags(cmd, strings.TrimLeft(name, "-")); len(similar) > 0 {
			text = "; did you mean " + strings.Join(similar, " or ") + "?"
		}
		return inputErrorf("there is no flag %s%s; %s -h lists them", name, text, cmd.CommandPath())
	case errors.As(err, &missing):
		return inputErrorf("--%s needs a value; give %s", missing.GetFlag().Name, accepted(missing.GetFlag()))
	case errors.As(err, &invalid):
		give := accepted(invalid.GetFlag())
		if errors.Is(err, strconv.ErrRange) {
			give += ", nearer to 0"
		}
		is := strconv.Quote(invalid.GetValue())
		if invalid.GetValue() == "" {
			is = "empty"
		}
		return inputErrorf("--%s is %s; give %s", invalid.GetFlag().Name, is, give)
	case errors.As(err, &syntax):
		return inputErrorf("%s is no flag; %s -h lists them", syntax.GetSpecifiedFlag(), cmd.CommandPath())
	}
	return err
}

// accepted says what a flag takes.
func accepted(f *pflag.Flag) string {
	if s, ok := f.Value.(*settingValue); ok {
		return s.row.give
	}
	switch f.Value.Type() {
	case "bool":
		return "true or false, or nothing"
	case "float64":
		return "a number"
	case "int":
		return "a whole number"
	case "intSlice":
		return "whole numbers with commas between"
	}
	kind, _ := pflag.UnquoteUsage(f)
	return kind
}

// similarFlags are the verb's flags with a name like that. It is cobra that knows what is alike, among commands.
func similarFlags(cmd *cobra.Command, name string) (similar []string) {
	names := &cobra.Command{SuggestionsMinimumDistance: 2}
	add := func(f *pflag.Flag) {
		if !f.Hidden {
			names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
		}
	}
	if cmd.Flags().Lookup(name) != nil { // one dash instead of two
		return []string{"--" + name}
	}
	cmd.Flags().VisitAll(add)
	for _, s := range names.SuggestionsFor(strings.ReplaceAll(name, "_", "-")) {
		similar = append(similar, "--"+s)
	}
	return similar[:min(len(similar), 3)]
}

// noneEmpty refuses flags that are given without anything in them, as an unset variable of a shell does it.
func noneEmpty(cmd *cobra.Command) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		empty, what := f.Value.String() == "", "is"
		if list, ok := f.Value.(pflag.SliceValue); ok {
			if parts := list.GetSlice(); len(parts) == 0 || len(parts) == 1 && parts[0] == "" {
				empty = true
			} else if slices.Contains(parts, "") {
				empty, what = true, "has a part that is"
			}
		}
		if empty && err == nil {
			err = inputErrorf("--%s %s empty; give %s, or leave it out", f.Name, what, accepted(f))
		}
	})
	for i, arg := range cmd.Flags().Args() {
		if arg == "" && err == nil {
			err = inputErrorf("argument %d of %s is empty", i+1, cmd.Name())
		}
	}
	return err
}

// decimal is the value of a flag that takes a whole number, without the notations of Go, in which 010 is 8.
type decimal struct{ pflag.Value }

func (d decimal) Set(text string) error {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return err
	}
	return d.Value.Set(strconv.FormatInt(n, 10))
}

// decimalFlags makes whole numbers decimal ones, of a command and those below it.
func decimalFlags(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if t := f.Value.Type(); t == "int" || t == "int64" {
			f.Value = decimal{f.Value}
		}
	})
	for _, c := range cmd.Commands() {
		decimalFlags(c)
	}
}
