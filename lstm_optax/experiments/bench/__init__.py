"""The benchmark: workloads as rows, contenders that compute the same, interleaved timing."""
