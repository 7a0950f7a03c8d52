package report

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"unicode"
)

// What makes a word tell a group apart.
const (
	maxWords     = 6     // shown of a group
	maxNaming    = 3     // in its name
	leastKeyness = 15.13 // of a word: chance gives as much once in 10,000 words
	leastPart    = 0.1   // of the group's texts that have it
)

// tellingWords finds the words that tell each group, a set of texts by their indices, from all other texts, the most
// telling first: those that more of its texts have, by the log-likelihood ratio of the two shares (Dunning, "Accurate
// methods for the statistics of surprise and coincidence", Computational Linguistics 19, 1993). A word counts once in a
// text. Words that never stand apart in the group, such as "frying pan", count as one.
func tellingWords(ctx context.Context, texts []string, groups [][]int) ([][]share, error) {
	everyone := map[string]int{} // texts that have a word, of the words of the groups
	inside := make([]map[string]int, len(groups))
	for g, members := range groups {
		inside[g] = map[string]int{}
		for _, i := range members {
			for _, w := range unique(wordsOf(texts[i])) {
				inside[g][w]++
				everyone[w] = 0
			}
		}
	}
	for i, text := range texts {
		if i%4096 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		for _, w := range unique(wordsOf(text)) {
			if count, ok := everyone[w]; ok {
				everyone[w] = count + 1
			}
		}
	}
	out := make([][]share, len(groups))
	for g, members := range groups {
		out[g] = telling(texts, members, inside[g], everyone)
	}
	return out, nil
}

// telling are the words of one group. inside and everyone count the texts that have a word.
func telling(texts []string, members []int, inside, everyone map[string]int) []share {
	type found struct {
		share
		keyness float64
	}
	var all []found
	for w, a := range inside {
		part, of := float64(a)/float64(len(members)), float64(everyone[w])/float64(len(texts))
		if k := keyness(a, len(members), everyone[w]-a, len(texts)-len(members)); k >= leastKeyness && part > of && part >= leastPart {
			all = append(all, found{share{w, part, of}, k})
		}
	}
	slices.SortFunc(all, func(a, b found) int { return cmp.Or(cmp.Compare(b.keyness, a.keyness), cmp.Compare(a.Label, b.Label)) })
	var out []share
	for _, f := range all {
		together := slices.IndexFunc(out, func(s share) bool {
			return s.Part == f.Part && s.Everyone == f.Everyone && phrase(texts, members, s.Label, f.Label) != ""
		})
		switch {
		case together >= 0:
			out[together].Label = phrase(texts, members, out[together].Label, f.Label)
		case len(out) < maxWords:
			out = append(out, f.share)
		}
	}
	for i := range out {
		out[i].Label = clean(out[i].Label, maxID)
	}
	return out
}

// keyness is the log-likelihood ratio of a word that a of m texts have and b of n others.
func keyness(a, m, b, n int) float64 {
	term := func(count, size int) float64 {
		if count == 0 {
			return 0
		}
		return float64(count) * math.Log(float64(count)/float64(size)/(float64(a+b)/float64(m+n)))
	}
	absent := func(count, size int) float64 {
		if count == size {
			return 0
		}
		return float64(size-count) * math.Log(float64(size-count)/float64(size)/(float64(m+n-a-b)/float64(m+n)))
	}
	return 2 * (term(a, m) + absent(a, m) + term(b, n) + absent(b, n))
}

// phrase joins two words that stand side by side, in one order, in each of the texts that have either; "" where they do
// not.
func phrase(texts []string, members []int, a, b string) string {
	joined := ""
	for _, i := range members {
		text := " " + strings.Join(wordsOf(texts[i]), " ") + " "
		if !strings.Contains(text, " "+a+" ") && !strings.Contains(text, " "+b+" ") {
			continue
		}
		if joined == "" {
			if joined = a + " " + b; !strings.Contains(text, " "+joined+" ") {
				joined = b + " " + a
			}
		}
		if !strings.Contains(text, " "+joined+" ") {
			return ""
		}
	}
	return joined
}

// wordsOf takes a text apart into words of letters and digits, with what joins these inside, in lower case.
func wordsOf(text string) []string {
	const joins = "-'’"
	words := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
		return !unicode.In(r, unicode.Letter, unicode.Digit, unicode.Mark) && !strings.ContainsRune(joins, r)
	})
	for i, w := range words {
		words[i] = strings.Trim(w, joins)
	}
	return slices.DeleteFunc(words, func(w string) bool { return w == "" })
}

// wordTitle names a group by its most telling words: by those that most of its texts have, else by what is in more of
// them than elsewhere.
func wordTitle(words []share) string {
	if names := wordNames(words, most); names != nil {
		return "mostly " + strings.Join(names, " ")
	}
	if names := wordNames(words, 0); names != nil {
		return "more often " + strings.Join(names, ", ")
	}
	return ""
}

// wordNames are the most telling words, in quotes, as far as at least a part of the texts have them.
func wordNames(words []share, part float64) (names []string) {
	for _, w := range words[:min(len(words), maxNaming)] {
		if w.Part >= part {
			names = append(names, "“"+w.Label+"”")
		}
	}
	return names
}
