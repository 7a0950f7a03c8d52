# Reads what `cuobjdump -sass` says of one object. Fails where an architecture has no instruction that begins with
# `want`: products that were written for tensor cores and run elsewhere are right, and slow.
/^arch = / { arch = $3; seen[arch] += 0 }
index($0, want) { seen[arch]++ }
END {
  for (arch in seen) {
    count++
    if (!seen[arch]) { printf "%s: no %s for %s\n", object, want, arch; bad = 1 }
    total += seen[arch]
  }
  if (!count) { printf "%s: no machine code\n", object; bad = 1 }
  if (!bad) printf "%s: %d %s, in code for %d architectures\n", object, total, want, count
  exit bad
}
