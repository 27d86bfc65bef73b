"""Speed, side by side with the plain published code, in one run; raw output goes to results/benchmarks/."""
