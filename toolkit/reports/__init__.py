"""What a run leaves for people: results.json, progress, tables and the HTML page."""
