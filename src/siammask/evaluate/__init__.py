"""Scoring trackers on annotated video: `report.evaluate_folder` is the front door."""
