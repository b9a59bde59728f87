"""The only code that loads TensorRT. It runs in the child process and nowhere else."""
