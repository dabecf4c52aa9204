"""What goes into a run and comes out of it: arguments, output folder, results.json, progress, tables, the HTML report.

Every other room that runs something stands on this one; it knows no model, no data and no task.
"""
