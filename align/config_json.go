package align

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// ParseConfig reads settings as one JSON object over the defaults; a term without a weight has the weight 1. Unknown
// keys, keys given twice and wrong types are errors that name the key, and so is a zero where 0 is no value: only a
// setting that is not given takes its default.
func ParseConfig(data []byte) (Config, error) {
	c := DefaultConfig()
	if err := checkKeys(data); err != nil {
		return Config{}, fmt.Errorf("align: settings: %w", err)
	}
	if err := strict(data, &c); err != nil {
		return Config{}, fmt.Errorf("align: settings: %w", inWords(err))
	}
	var given struct {
		zeros
		Terms []zeros `json:"terms"`
	}
	if err := json.Unmarshal(data, &given); err != nil {
		return Config{}, fmt.Errorf("align: settings: %w", inWords(err))
	}
	if err := given.check(""); err != nil {
		return Config{}, err
	}
	for i, t := range given.Terms {
		if err := t.check(fmt.Sprintf("terms[%d].", i)); err != nil {
			return Config{}, err
		}
	}
	return c, c.Validate()
}

// UnmarshalJSON reads a term; its weight is 1 where none is given.
func (t *Term) UnmarshalJSON(data []byte) error {
	type plain Term
	p := plain{Weight: 1}
	if err := strict(data, &p); err != nil {
		return err
	}
	*t = Term(p)
	return nil
}

// strict decodes one JSON value without unknown keys.
func strict(data []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if d.More() {
		return fmt.Errorf("more than one JSON value")
	}
	return nil
}

// zeros are the settings whose zero stands for "not given" in a Config, as they were given.
type zeros struct {
	K           *float64 `json:"k"`
	P           *float64 `json:"p"`
	Temperature *float64 `json:"temperature"`
	NumFeatures *float64 `json:"num_features"`
}

func (z *zeros) check(prefix string) error {
	for _, s := range []struct {
		name string
		v    *float64
		give string
	}{
		{"k", z.K, "1 or more"},
		{"p", z.P, "1 to 2"},
		{"temperature", z.Temperature, "a positive number"},
		{"num_features", z.NumFeatures, "1 or more"},
	} {
		if s.v != nil && *s.v == 0 {
			return fmt.Errorf("align: settings: %s%s is 0; give %s", prefix, s.name, s.give)
		}
	}
	return nil
}
