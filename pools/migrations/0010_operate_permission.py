from django.db import migrations

OLD = "Can recycle and drain the workers of pools"
NEW = "Can recycle, drain, scale, pause, resume, kill, see stacks and end calls of pools"


def _rename(old, new):
    """Rows of a permission are made once, after a migration; nothing gives them a new name later."""

    def rename(apps, schema_editor):
        rows = apps.get_model("auth", "Permission").objects.using(schema_editor.connection.alias)
        rows.filter(content_type__app_label="snakepit_pools", codename="operate_pool", name=old).update(name=new)

    return rename


class Migration(migrations.Migration):
    dependencies = [
        ("snakepit_pools", "0009_pool_period"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="pool",
            options={
                "ordering": ("name",),
                "permissions": [
                    ("operate_pool", NEW),
                    ("run_command", "Can call the commands of pools"),
                    ("view_payload", "Can see arguments and results of calls"),
                ],
            },
        ),
        migrations.RunPython(_rename(OLD, NEW), _rename(NEW, OLD)),
    ]
