"""The trail: its layout, its records, and what is set aside of them."""
