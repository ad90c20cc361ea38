"""What may be set, declared once, and what is made of the declarations: checks, help, a page."""
