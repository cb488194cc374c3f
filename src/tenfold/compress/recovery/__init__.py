"""What repairs a compressed model: batch norm statistics, blockwise reconstruction, tuning, distillation."""
