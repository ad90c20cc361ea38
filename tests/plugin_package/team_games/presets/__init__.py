"""Settings by name: `preset=team_games/small`."""
