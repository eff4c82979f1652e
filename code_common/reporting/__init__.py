"""What a person looks at: pictures, charts, tables, pages."""
