#!/bin/sh
# Compiles a crate of the workspace with what libFuzzer needs: which code is reached is counted, what is compared is told.
# Cargo calls it in the compiler's place, for `cargo xtask fuzz`. Works on stable.
exec "$@" \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
