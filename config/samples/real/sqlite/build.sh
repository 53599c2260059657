# Builds SQLite from its amalgamation and runs a workload on it. Runs inside the sandbox: no network, sources read-only.
set -eu
mkdir -p out
gcc -O1 -o out/workload \
    -DSQLITE_THREADSAFE=0 -DSQLITE_OMIT_LOAD_EXTENSION -DSQLITE_DEFAULT_SYNCHRONOUS=0 \
    source/sqlite3-binding.c source/workload.c
out/workload > out/result.txt
cat out/result.txt
