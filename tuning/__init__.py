"""A search for hyper-parameters: what is searched, the study, its trials, and what they tell."""
