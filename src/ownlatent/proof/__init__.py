"""The trained encoder beside what one could have had without it: who is compared, how, and what it says."""
