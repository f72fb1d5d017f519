"""The pages of `make up` under /dev/. Each has its own script and style sheet, and loads nothing from other hosts."""
