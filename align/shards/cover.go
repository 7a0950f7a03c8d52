package shards

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"reflect"
	"slices"
	"strings"
	"unsafe"

	"github.com/specalign/specalign/align/compare"
)

// Seen is what a pass saw of a shard.
type Seen struct {
	Shard     int    `json:"shard"`
	Name      string `json:"name"` // the student's file
	Rows      int    `json:"rows"`
	Student   uint32 `json:"student"` // CRC-32C of the rows as float32
	Reference uint32 `json:"reference"`
}

func shardName(shard int, name string) string { return fmt.Sprintf("shard %d (%s)", shard, name) }

// cover is what files of moments, directions and scores say of where they come from.
type cover struct {
	Plan     string          `json:"plan"`     // digest
	Settings json.RawMessage `json:"settings"` // the plan's options, for a message
	Total    int             `json:"total"`    // shards in the plan
	ISA      []string        `json:"isa"`      // instruction sets of the passes, in the order of their names
	Seen     []Seen          `json:"seen"`     // by rising shard
	// Pass is the digest of the directions that scores belong to, "" of the first pass.
	Pass string `json:"pass"`
}

func (p *Plan) cover(isa, pass string, seen []Seen) (cover, error) {
	settings, err := json.Marshal(&p.Options)
	return cover{p.digest, settings, len(p.Shards), []string{isa}, seen, pass}, err
}

// check validates what came from a file.
func (c *cover) check(f File) error {
	if c.Total < 1 || c.Total > maxShards || len(c.Seen) > c.Total || len(c.ISA) > 16 {
		return f.malformed("it has %d of %d shards", len(c.Seen), c.Total)
	}
	last := -1
	for _, s := range c.Seen {
		if s.Shard <= last || s.Shard >= c.Total || s.Rows < 1 || s.Rows > 1<<31 {
			return f.malformed("its list of shards is not in order")
		}
		last = s.Shard
	}
	return nil
}

// belongs tells whether the file belongs to a plan.
func (c *cover) belongs(f File, p *Plan) error {
	if c.Plan == p.digest && c.Total == len(p.Shards) {
		return nil
	}
	settings, err := json.Marshal(&p.Options)
	if err != nil {
		return err
	}
	return inputErrorf("shards: %s was made by another plan: %s", f.Name, difference(c.Settings, settings))
}

// difference says in which setting two plans differ.
func difference(a, b json.RawMessage) string {
	var x, y map[string]any
	if json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil {
		keys := []string{}
		for _, m := range []map[string]any{x, y} {
			for k := range m {
				keys = append(keys, k)
			}
		}
		slices.Sort(keys)
		for _, k := range keys {
			if !reflect.DeepEqual(x[k], y[k]) {
				return fmt.Sprintf("%s is %v there and %v here", k, x[k], y[k])
			}
		}
	}
	return "its settings are the same, but its shards or its random numbers are others"
}

// missing names the shards that are not seen, "" for none.
func (c *cover) missing(p *Plan) string {
	const most = 5
	var names []string
	at, count := 0, 0
	for i := range p.Shards {
		if at < len(c.Seen) && c.Seen[at].Shard == i {
			at++
			continue
		}
		if count++; count <= most {
			names = append(names, p.name(i))
		}
	}
	switch {
	case count == 0:
		return ""
	case count > most:
		names = append(names, fmt.Sprintf("%d more", count-most))
	}
	return strings.Join(names, ", ")
}

// join adds what another file of the same pass covers.
func (c *cover) join(f, from File, o *cover, owner map[int]string) error {
	switch {
	case c.Plan != o.Plan || c.Total != o.Total:
		return inputErrorf("shards: %s and %s were made by different plans: %s", from.Name, f.Name, difference(c.Settings, o.Settings))
	case c.Pass != o.Pass:
		return inputErrorf("shards: %s and %s are scores of different directions", from.Name, f.Name)
	}
	for _, s := range o.Seen {
		if other, twice := owner[s.Shard]; twice {
			return inputErrorf("shards: %s is in both %s and %s; it would count twice", shardName(s.Shard, s.Name), other, f.Name)
		}
		owner[s.Shard] = f.Name
	}
	c.Seen = append(c.Seen, o.Seen...)
	slices.SortFunc(c.Seen, func(a, b Seen) int { return cmp.Compare(a.Shard, b.Shard) })
	c.ISA = append(c.ISA, o.ISA...)
	slices.Sort(c.ISA)
	c.ISA = slices.Compact(c.ISA)
	return nil
}

// changed compares what two passes saw of a shard.
func changed(first, second Seen) error {
	for _, s := range []struct {
		side          string
		before, after any
	}{{"", first.Rows, second.Rows}, {"student's ", first.Student, second.Student}, {"reference's ", first.Reference, second.Reference}} {
		if s.before != s.after {
			return inputErrorf("shards: %s changed between the passes: the %srows are others; start again from partial", shardName(first.Shard, first.Name), s.side)
		}
	}
	return nil
}

// witness is a Rows that fingerprints what is read from it in order.
type witness struct {
	compare.Rows
	next int
	crc  uint32
}

// Read reads rows.
func (w *witness) Read(dst []float32, first int) error {
	if err := w.Rows.Read(dst, first); err != nil {
		return err
	}
	if first == w.next {
		// The machines that this runs on are little-endian.
		w.crc = crc32.Update(w.crc, castagnoli, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(dst))), 4*len(dst)))
		w.next += len(dst) / w.Dim()
	}
	return nil
}
