"""Text from a trained model: sampling, decoding within the context, and tokens to text as they come."""
