"""What the process and the machine give: threads and event loops, GPUs, installed packages."""
