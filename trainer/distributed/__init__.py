"""One run shared by the processes that ``torchrun`` starts: plain data parallel, or sharded weights (FSDP2)."""
