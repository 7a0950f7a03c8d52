# Reads what `ptxas -v` says. Fails where a kernel spills registers or keeps anything in local memory, which is slow.
/Compiling entry function/ { split($0, part, "'"); name = part[2] }
/bytes stack frame/ {
  for (i = 1; i < NF; i++) {
    if ($(i + 1) == "bytes" && $(i + 2) == "stack") stack = $i
    if ($(i + 1) == "bytes" && $(i + 2) == "spill") spill += $i
  }
}
/Used [0-9]+ registers/ {
  count++
  if (stack || spill) { printf "%s: %d bytes of local memory, %d of spills\n", name, stack, spill; bad = 1 }
  stack = spill = 0
}
END { if (!bad) printf "ptxas: %d kernels without spills or local memory\n", count; exit bad }
