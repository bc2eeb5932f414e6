"""The benchmarks that people quote: their files, and the words in which they are asked."""
