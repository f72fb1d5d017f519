"""The providers' far ends, to test against without their accounts: real wire, scripted answers."""
