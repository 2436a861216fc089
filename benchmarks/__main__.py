"""`python -m benchmarks`: every benchmark, one after another."""

from benchmarks import chunks, start_up, steps

if __name__ == "__main__":
    start_up.main()
    chunks.main()
    steps.main([])
