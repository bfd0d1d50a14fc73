"""The room of SFT, reward model, DPO and PPO. Their sizes and costs are planned in ``scaling.post_training``."""
