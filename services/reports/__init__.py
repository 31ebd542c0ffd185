"""The service `reports`: what was used and what it cost, over time and by whom."""
