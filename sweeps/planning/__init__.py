"""From a budget and a question to runs, what they take and what they are expected to say."""
