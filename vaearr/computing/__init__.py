"""How work is computed: devices and precision, CPU threads, progress bars."""
