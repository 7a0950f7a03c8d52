package align

import (
	"strings"
	"testing"
)

func TestParseConfig(t *testing.T) {
	c, err := ParseConfig([]byte(`{"terms": [{"objective": "ky_fan", "k": 3}, {"objective": "frobenius", "weight": 0}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Terms[0] != (Term{Objective: ObjectiveKyFan, K: 3, Weight: 1}) || c.Terms[1].Weight != 0 {
		t.Errorf("terms are %+v", c.Terms)
	}
	for _, bad := range []struct{ text, want string }{
		{`{"k": 0}`, "k is 0; give 1 or more"},
		{`{"k": -0.0}`, "k"},
		{`{"p": 0, "objective": "schatten"}`, "p is 0; give 1 to 2"},
		{`{"terms": [{"objective": "ky_fan"}, {"objective": "relational_kl", "temperature": 0}]}`, "terms[1].temperature is 0"},
		{`{"num_features": 0}`, "num_features is 0"},
		{`{"terms": [{"objectiv": "ky_fan"}]}`, `unknown field "objectiv"`},
		{`{"kk": 1}`, `unknown field "kk"`},
		{`{"k": "3"}`, "k is a string; give a whole number"},
		{`{"k": 3.5}`, "k is 3.5; give a whole number"},
		{`{"eta": [1]}`, "eta is a list; give a number"},
		{`{"seed": -1}`, "seed is -1; give a whole number of 0 or more"},
		{`{"kernel": 3}`, "kernel is a number; give a word"},
		{`{"center": {}}`, "center is an object; give true or false"},
		{`{"terms": 3}`, "terms is a number; give a list"},
		{`{"terms": [{"objective": "ky_fan", "k": "a"}]}`, "k is a string; give a whole number"},
		{`3`, "the value is a number; give an object of settings"},
		{`{"K": 3}`, `unknown field "K"; the setting is called k`},
		{`{"k": 3, "Objective": "frobenius"}`, "the setting is called objective"},
		{`{"k": 3, "k": 4}`, "k is given twice"},
		{`{"k": 3, "\u006b": 4}`, "k is given twice"},
		{`{"terms": [{"objective": "ky_fan"}, {"objective": "ky_fan", "Weight": 2}]}`, "the setting is called weight"},
		{`{"terms": [{"objective": "ky_fan", "k": 1, "k": 1}]}`, "terms[0].k is given twice"},
		{`{"sigma": {"x": 1, "x": 1}}`, "sigma.x is given twice"},
		{`{} {}`, "more than one JSON value"},
		{`[]`, "settings"},
		{strings.Repeat("[", 1<<20), "settings"},
		{`{`, "settings"},
		{``, "settings"},
	} {
		_, err := ParseConfig([]byte(bad.text))
		if err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v, want one with %q", bad.text, err, bad.want)
		}
	}
}
