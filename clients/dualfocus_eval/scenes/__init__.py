"""Seeded pictures with questions, answers, boxes and kinds, drawn with Pillow."""
