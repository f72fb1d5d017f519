"""Local far ends of the providers, for tests without an account: real protocols, scripted responses."""
