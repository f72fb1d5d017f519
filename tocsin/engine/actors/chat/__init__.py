"""Chats: Slack, Discord, Microsoft Teams, Telegram, and others by Apprise."""
