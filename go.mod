module github.com/specalign/specalign

go 1.26
