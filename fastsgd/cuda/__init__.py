"""The machinery of CUDA: programs as text, their compilers and caches, cards. It knows nothing of runs."""
