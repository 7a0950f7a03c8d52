package compare

import "fmt"

// Fan is how many parts of a Tree make one of the next level.
const Fan = 8

// Part is the sum over some shards of a data set: over shard Index where Level is 0; else over the first Children of
// the parts Fan·Index, Fan·Index + 1, ... of the level below.
type Part[T any] struct {
	Level, Index int
	Children     int // 1 to Fan; 1 at level 0
	Sum          T
}

// Tree adds up what was computed of the shards of a data set, in an order that depends on their number alone:
// floating-point sums have the same bits in whichever order parts arrive, and however often they were stored and merged
// in between. Every part is the sum from left to right of the parts below it:
//
//	level 2   (p0 + p1) + p2 ...             over 64 shards each
//	level 1   ((s0 + s1) + s2) + ... + s7    over 8 shards each
//	level 0   shards
//
// Shards that arrive in order leave one part a level in memory.
type Tree[T any] struct {
	shards int
	add    func(to, from T) error
	parts  map[[2]int]Part[T]
}

// NewTree returns the tree of a number of shards. add computes to += from.
func NewTree[T any](shards int, add func(to, from T) error) *Tree[T] {
	return &Tree[T]{shards, add, map[[2]int]Part[T]{}}
}

// width returns the number of parts of a level.
func (t *Tree[T]) width(level int) int {
	n := t.shards
	for range level {
		n = (n + Fan - 1) / Fan
	}
	return n
}

func (t *Tree[T]) complete(p Part[T]) bool {
	return p.Level == 0 || p.Children == min(Fan, t.width(p.Level-1)-Fan*p.Index)
}

// Check tells whether there is such a part in this tree.
func (t *Tree[T]) Check(p Part[T]) error {
	const most = 20 // levels that numbers of shards have
	if p.Level < 0 || p.Level > most || p.Level > 0 && t.width(p.Level-1) < 2 || p.Index < 0 || p.Index >= t.width(p.Level) ||
		p.Children < 1 || p.Level == 0 && p.Children > 1 || p.Level > 0 && p.Children > min(Fan, t.width(p.Level-1)-Fan*p.Index) {
		return fmt.Errorf("compare: %d shards have no part %d of %d children at level %d", t.shards, p.Index, p.Children, p.Level)
	}
	return nil
}

// Shards returns the shards first .. end-1 that a part is the sum over.
func (t *Tree[T]) Shards(p Part[T]) (first, end int) {
	size, child := 1, 1
	for range p.Level {
		size, child = size*Fan, size
	}
	return p.Index * size, min(p.Index*size+p.Children*child, t.shards)
}

// Add takes a part, whose sum becomes the tree's. A part over shards that were added before is an error where it stands
// in the way; whoever takes parts from elsewhere compares their shards first.
func (t *Tree[T]) Add(p Part[T]) error {
	if err := t.Check(p); err != nil {
		return err
	}
	for {
		if _, twice := t.parts[[2]int{p.Level, p.Index}]; twice {
			return fmt.Errorf("compare: part %d of level %d is added twice", p.Index, p.Level)
		}
		for !t.complete(p) { // what waited for it
			at := [2]int{p.Level - 1, p.Index*Fan + p.Children}
			next, ok := t.parts[at]
			if !ok || !t.complete(next) {
				break
			}
			if err := t.add(p.Sum, next.Sum); err != nil {
				return err
			}
			delete(t.parts, at)
			p.Children++
		}
		if !t.complete(p) || t.width(p.Level) == 1 {
			t.parts[[2]int{p.Level, p.Index}] = p
			return nil
		}
		above := [2]int{p.Level + 1, p.Index / Fan}
		parent, ok := t.parts[above]
		switch child := p.Index % Fan; {
		case !ok && child == 0:
			p = Part[T]{p.Level + 1, p.Index / Fan, 1, p.Sum}
		case ok && parent.Children > child:
			return fmt.Errorf("compare: part %d of level %d is added twice", p.Index, p.Level)
		case ok && parent.Children == child:
			if err := t.add(parent.Sum, p.Sum); err != nil {
				return err
			}
			delete(t.parts, above)
			parent.Children++
			p = parent
		default: // an earlier sibling is missing
			t.parts[[2]int{p.Level, p.Index}] = p
			return nil
		}
	}
}

// Parts returns what the tree holds, in no order.
func (t *Tree[T]) Parts() []Part[T] {
	out := make([]Part[T], 0, len(t.parts))
	for _, p := range t.parts {
		out = append(out, p)
	}
	return out
}

// Whole returns the sum over all shards, once they were added.
func (t *Tree[T]) Whole() (sum T, ok bool) {
	for _, p := range t.parts {
		if first, end := t.Shards(p); first == 0 && end == t.shards {
			return p.Sum, true
		}
	}
	return sum, false
}
