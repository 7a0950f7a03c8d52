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
		{`{"k": "a"}`, "k"},
		{`{} {}`, "more than one JSON value"},
		{`[]`, "settings"},
		{`{`, "settings"},
		{``, "settings"},
	} {
		_, err := ParseConfig([]byte(bad.text))
		if err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v, want one with %q", bad.text, err, bad.want)
		}
	}
}
