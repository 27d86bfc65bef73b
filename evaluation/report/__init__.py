"""The report that people look at: one self-contained HTML page, and a model card (make_report.py)."""
