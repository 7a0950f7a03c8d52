package align

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// checkKeys refuses what encoding/json lets pass: names that differ from a setting's in case only, and a name that is
// given twice. Anything else that is wrong with the text is left to the decoder.
func checkKeys(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	err := walk(d, reflect.TypeFor[Config](), "", 0)
	var wrong *keyError
	if errors.As(err, &wrong) {
		return err
	}
	return nil
}

// maxDepth is how deep settings are looked at; nothing that is valid is nearly as deep.
const maxDepth = 16

// keyError is a name that is wrong.
type keyError struct{ message string }

func (e *keyError) Error() string { return e.message }

// walk reads one value that is to be decoded into a t, which may be nil for one that nothing is known of. at is its
// name, with a dot behind it, for messages.
func walk(d *json.Decoder, t reflect.Type, at string, depth int) error {
	if depth > maxDepth {
		return errors.New("too deep")
	}
	token, err := d.Token()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('{'):
		known := fields(t)
		seen := map[string]bool{}
		for d.More() {
			token, err := d.Token()
			if err != nil {
				return err
			}
			key := token.(string) // anything else is a syntax error
			if seen[key] {
				return &keyError{fmt.Sprintf("%s%s is given twice", at, key)}
			}
			seen[key] = true
			of, ok := known[key]
			for name := range known {
				if !ok && strings.EqualFold(name, key) {
					return &keyError{fmt.Sprintf("unknown field %q; the setting is called %s", key, name)}
				}
			}
			if err := walk(d, of, at+key+".", depth+1); err != nil {
				return err
			}
		}
	case json.Delim('['):
		var of reflect.Type
		if t != nil && t.Kind() == reflect.Slice {
			of = t.Elem()
		}
		for i := 0; d.More(); i++ {
			if err := walk(d, of, fmt.Sprintf("%s[%d].", strings.TrimSuffix(at, "."), i), depth+1); err != nil {
				return err
			}
		}
	default:
		return nil
	}
	_, err = d.Token() // the end of the object or list
	return err
}

// fields returns the types of a struct's fields by their names in JSON.
func fields(t reflect.Type) map[string]reflect.Type {
	known := map[string]reflect.Type{}
	if t == nil || t.Kind() != reflect.Struct {
		return known
	}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" {
			known[name] = t.Field(i).Type
		}
	}
	return known
}

// inWords says of a value of the wrong type what it is and what to give instead.
func inWords(err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	name := "the value"
	if wrong.Field != "" {
		name = wrong.Field
	}
	is := map[string]string{
		"string": "a string", "bool": "true or false", "array": "a list", "object": "an object", "number": "a number",
	}[wrong.Value]
	if is == "" {
		is = strings.TrimPrefix(wrong.Value, "number ")
	}
	give := "an object of settings"
	switch wrong.Type.Kind() {
	case reflect.Int, reflect.Int64:
		give = "a whole number"
	case reflect.Uint64:
		give = "a whole number of 0 or more"
	case reflect.Float64:
		give = "a number"
	case reflect.String:
		give = "a word"
	case reflect.Bool:
		give = "true or false"
	case reflect.Slice:
		give = "a list"
	}
	return fmt.Errorf("%s is %s; give %s", name, is, give)
}
