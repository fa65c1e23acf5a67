"""References that share no code with mge_gpu: what the tests compare it with."""
