"""`python -m benchmarks`: every benchmark, one after another."""

from benchmarks import chunks, growth_steps, start_up, steps

if __name__ == "__main__":
    start_up.main()
    chunks.main()
    growth_steps.main()
    steps.main([])
