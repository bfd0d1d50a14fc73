"""Instructions and answers written by a model from seed tasks, kept if they are well formed and new.

Self-Instruct (Wang et al. 2212.10560) as Alpaca (Taori et al. 2023) simplified it: instruction, input and output in one
request.
"""
