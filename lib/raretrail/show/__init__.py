"""What people read in a terminal: pure functions from rows to text.

Rows are dictionaries by column name, as `raretrail.look` hands them out. All text that stems from
the trail passes `text.inert`, so that nothing an intruder wrote into a log acts on a terminal.
"""
