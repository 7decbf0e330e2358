"""What the REST API, the admin and the dashboard share: errors as HTTP answers, and who acts."""
