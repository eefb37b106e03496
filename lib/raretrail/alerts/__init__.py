"""Alerts out of the house: what is posted of an incident, and posting it so that it arrives."""
