"""Conversations: what was said in a chat, and what to answer."""
