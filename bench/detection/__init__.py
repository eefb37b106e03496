"""How many intrusions a score finds at how many incidents a day, on simulated organisations."""
