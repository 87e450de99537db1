"""Spoken replies: text made speakable, spoken by a program of the machine's, kept as a voice note."""
