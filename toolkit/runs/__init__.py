"""What goes into a run and what it leaves: arguments, output folder, results.json, progress, tables, the HTML page.

This package knows no model, no data and no task, and importing its modules loads no torch.
"""
