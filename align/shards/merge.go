package shards

import (
	"github.com/specalign/specalign/align/compare"
)

// Merge joins files of moments, or of scores, in any order and any number. A shard that is in two of them, and files of
// different plans, are an error.
func Merge(files ...File) ([]byte, error) {
	if len(files) == 0 {
		return nil, inputErrorf("shards: no file is given to merge")
	}
	kind, err := files[0].Kind()
	if err != nil {
		return nil, err
	}
	switch kind {
	case KindMoments:
		return mergeMoments(files)
	case KindScores:
		return mergeScores(files)
	}
	return nil, inputErrorf("shards: %s holds %v, which cannot be merged; moments or scores can", files[0].Name, kind)
}

func mergeMoments(files []File) ([]byte, error) {
	var all *moments
	owner := map[int]string{}
	for _, f := range files {
		m, err := parseMoments(f)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = &moments{m.cover, compare.NewTree(m.Total, (*compare.Moments).Merge)}
			all.Seen = nil
		}
		if err := all.join(f, files[0], &m.cover, owner); err != nil {
			return nil, err
		}
		if err := addAll(f, all.tree, m.tree); err != nil {
			return nil, err
		}
	}
	return encodeMoments(&all.cover, all.tree)
}

func mergeScores(files []File) ([]byte, error) {
	var all *scores
	owner := map[int]string{}
	for _, f := range files {
		s, err := parseScores(f)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = &scores{s.cover, s.directions, s.features, s.samples, newScoresTree(s.Total, s.samples)}
			all.Seen = nil
		}
		if s.directions != all.directions || s.features != all.features || s.samples != all.samples {
			return nil, f.malformed("it has other directions than %s", files[0].Name)
		}
		if err := all.join(f, files[0], &s.cover, owner); err != nil {
			return nil, err
		}
		if err := addAll(f, all.tree, s.tree); err != nil {
			return nil, err
		}
	}
	return encodeScores(&all.cover, all.directions, all.features, all.samples, all.tree)
}

// addAll puts the parts of a file's tree into another.
func addAll[T any](f File, to, from *compare.Tree[T]) error {
	for _, p := range sorted(from) {
		if err := to.Add(p); err != nil {
			return f.malformed("%v", err)
		}
	}
	return nil
}
